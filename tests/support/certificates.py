"""Certificates made at run time with the openssl program: nothing of the kind lies in the repository."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

CONFIG = """\
[ca]
default_ca = authority
[authority]
database = index.txt
serial = serial
new_certs_dir = .
policy = names
default_md = sha256
copy_extensions = copyall
unique_subject = no
[names]
commonName = supplied
"""
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate, its private key, and both in one file, as Kafka reads them."""

    cert: Path
    key: Path
    both: Path


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self.ca = self.folder / "ca.pem"
        (self.folder / "openssl.cnf").write_text(CONFIG)
        (self.folder / "index.txt").touch()
        (self.folder / "serial").write_text("01\n")
        self._openssl(
            "req",
            "-x509",
            *NEW_KEY,
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        )

    def issue(self, name: str, *hosts: str, expired: bool = False, password: str | None = None) -> Pair:
        """A certificate for these hosts (DNS:localhost, IP:127.0.0.1), its key encrypted where there is a password."""
        names = ("-addext", f"subjectAltName={','.join(hosts)}") if hosts else ()
        hidden = ("-passout", f"pass:{password}") if password else ("-nodes",)
        request = ("-subj", f"/CN={name}", *names, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        self._openssl("req", *NEW_KEY, *hidden, *request)
        begin = datetime.now(UTC) - timedelta(days=30 if expired else 1)
        dates = ("-startdate", _date(begin), "-enddate", _date(begin + timedelta(days=3)))
        signing = ("-in", f"{name}.csr", "-cert", "ca.pem", "-keyfile", "ca.key", "-notext", "-out", f"{name}.pem")
        self._openssl("ca", "-batch", "-config", "openssl.cnf", *dates, *signing)
        made = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key", self.folder / f"{name}.both.pem")
        made.both.write_text(made.key.read_text() + made.cert.read_text())
        return made

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(
            ["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"openssl {arguments[0]} failed:\n{done.stderr[-2_000:]}"


def _date(moment: datetime) -> str:
    return f"{moment:%Y%m%d%H%M%S}Z"
