"""Kernels of this very Python, whatever other `python3` lies on Jupyter's paths."""

from ipykernel.kernelspec import RESOURCES
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager


class ThisPython(KernelSpecManager):
    """Jupyter's list of kernels, in which `python3` is the Python that asks. JupyterLab may be given it by name."""

    def find_kernel_specs(self) -> dict[str, str]:
        return super().find_kernel_specs() | {NATIVE_KERNEL_NAME: RESOURCES}

    def get_kernel_spec(self, kernel_name: str):
        if kernel_name == NATIVE_KERNEL_NAME:
            return self._get_kernel_spec_by_name(kernel_name, RESOURCES)
        return super().get_kernel_spec(kernel_name)


class Manager(AsyncKernelManager):
    """What starts a kernel, of this Python."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return ThisPython(parent=self)
