# The image of workers, the topics job and the simulator: docker build -t pulseline .
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY requirements/installer.txt requirements/run.lock requirements/
RUN python -m pip install --quiet --no-cache-dir --require-hashes -r requirements/installer.txt \
    && python -m venv --without-pip /opt/pulseline \
    && uv pip install --quiet --no-cache --compile-bytecode --python /opt/pulseline/bin/python --require-hashes -r requirements/run.lock
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY streams streams
RUN python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
    && uv pip install --quiet --no-cache --compile-bytecode --no-deps --python /opt/pulseline/bin/python /wheels/*.whl

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --home-dir /var/lib/pulseline --create-home pulseline
COPY --from=build /opt/pulseline /opt/pulseline
ENV PATH=/opt/pulseline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/pulseline
STOPSIGNAL SIGTERM
ENTRYPOINT ["pulseline"]
CMD ["worker"]
