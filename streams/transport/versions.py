"""The private seams of Faust and aiokafka that the transport leans on hold for these versions only."""

from importlib.metadata import version

from streams.errors import Fatal

SUPPORTED = {"aiokafka": "0.14.", "faust-streaming": "0.15."}


def require_versions() -> None:
    """Raise Fatal where an installed version is not one the transport was written against."""
    for distribution, prefix in SUPPORTED.items():
        found = version(distribution)
        if not found.startswith(prefix):
            raise Fatal(
                f"{distribution} {found} is installed, but the transport was tested with {prefix}x only: "
                f"pip install '{distribution}=={prefix}*'"
            )
