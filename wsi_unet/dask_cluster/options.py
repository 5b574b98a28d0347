"""The options that choose the Dask cluster. Imports nothing of Dask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsi_unet.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """The Dask cluster that computes, and how.

    Attributes:
        workers: number of local worker processes; None computes in this process; "auto" starts one
            process per GPU that CUDA_VISIBLE_DEVICES allows, and on a machine without a GPU
            computes in this process.
        scheduler: the scheduler of an existing cluster to use instead: its address, or the path of
            the file that it wrote its address to.
        tls_ca: file with the CA certificate of the cluster (PEM). The three TLS files replace those
            in Dask's configuration.
        tls_cert: file with this client's certificate (PEM).
        tls_key: file with its key (PEM); None if the key is in the certificate's file.
        insecure: whether the connection to a scheduler on another machine may be without TLS.
            Whoever reaches such a cluster's ports can run code there and, through it, here.
        max_retries: how often a block that fails is tried again.
        performance_report: path of an HTML file for Dask's report about the run.
    """

    workers: int | Literal["auto"] | None = None
    scheduler: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    insecure: bool = False
    max_retries: int = 1
    performance_report: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.workers, int) and self.workers < 1:
            raise OptionError(f"workers {self.workers}: at least one is needed", option="workers")
        if isinstance(self.workers, str) and self.workers != "auto":
            raise OptionError(
                f"workers {self.workers!r} is neither a number nor 'auto'", option="workers"
            )
        if self.workers is not None and self.scheduler is not None:
            raise OptionError("give either `workers` or `scheduler`, not both")
        if self.scheduler is None and (self.tls_ca or self.tls_cert or self.tls_key):
            raise OptionError("TLS files are for an existing cluster; give its `scheduler` too")
        if self.insecure and self.scheduler is None:
            raise OptionError("`insecure` is for an existing cluster; give its `scheduler` too")
        if self.insecure and (self.tls_ca or self.tls_cert or self.tls_key):
            raise OptionError("give either TLS files or `insecure`, not both")
        if self.tls_key and not self.tls_cert:
            raise OptionError("`tls_key` needs its certificate; give `tls_cert` too")
        if self.max_retries < 0:
            raise OptionError(f"max_retries {self.max_retries} is below 0", option="max_retries")
