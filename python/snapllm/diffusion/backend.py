"""The image model in this process, over `snapllm._diffusion`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snapllm.diffusion.params import ImageRequest, Picture
from snapllm.diffusion.weights_file import read_header
from snapllm.errors import SnapLLMError

if TYPE_CHECKING:
    from snapllm import _diffusion


def _array(picture: Picture) -> np.ndarray:
    samples = np.frombuffer(picture.samples, np.uint8)
    return samples.reshape(picture.height, picture.width, picture.num_channels)


def _picture(array: np.ndarray) -> Picture:
    height, width, num_channels = array.shape
    return Picture(width, height, num_channels, array.tobytes())


def _masked(array: np.ndarray, original: Picture, mask: Picture) -> np.ndarray:
    share = _array(mask).astype(np.float32) / 255
    blended = array * share + _array(original) * (1 - share)
    return np.rint(blended).astype(np.uint8)


class ImageBackend:
    """A loaded model; importing the extension is left to the first one.

    Args:
        files: Paths by part, see `snapllm.diffusion.parts`; checked by the caller.
        num_threads: Threads to compute with.
        flash_attention: Use flash attention in the diffusion model.

    Raises:
        RuntimeError: Upstream cannot load it.
    """

    def __init__(self, files: Mapping[str, str], num_threads: int, flash_attention: bool) -> None:
        from snapllm import _diffusion

        model_files = _diffusion.ModelFiles()
        for part, path in files.items():
            setattr(model_files, part, path)
        self._extension = _diffusion
        self._model: _diffusion.ImageModel = _diffusion.ImageModel(
            model_files, num_threads, flash_attention
        )

    @property
    def upscale_factor(self) -> int:
        """How many times larger an upscaled image is; 1 = there is no upscaler."""
        return self._model.upscale_factor

    @property
    def device_bytes(self) -> int:
        """What it has taken of a device's memory at most, so far; 0 on a CPU."""
        return self._model.device_bytes

    def generate(
        self,
        request: ImageRequest,
        on_step: Callable[[int, int, float], bool],
        on_preview: Callable[[int, Picture], None],
    ) -> list[Picture] | None:
        """Makes the images of a checked request.

        Args:
            request: What to make.
            on_step: Called with the steps done, all steps, and seconds a step; False
                cancels.
            on_preview: Called with a step and a rough picture.

        Returns:
            The images; None when the request was cancelled.

        Raises:
            RuntimeError: Upstream fails, or a LoRA's file is gone.
        """
        wanted = self._extension.ImageRequest()
        for name in (
            "prompt", "negative_prompt", "width", "height", "num_steps", "cfg_scale", "guidance",
            "strength", "seed", "num_images", "clip_skip", "sampler", "scheduler",
            "preview_interval",
        ):  # fmt: skip
            setattr(wanted, name, getattr(request, name))
        if request.init_image is not None:
            wanted.set_init_image(_array(request.init_image))
        if request.mask is not None:
            wanted.set_mask(_array(request.mask))
        for lora in request.loras:
            # Checked when it was asked for, maybe long ago: upstream paints without one it cannot
            # read.
            try:
                read_header(Path(lora.path))
            except SnapLLMError:
                name = Path(lora.path).stem
                raise RuntimeError(f"the LoRA {name!r} can be read no more") from None
            wanted.add_lora(lora.path, lora.weight)
        previewing = request.preview_interval > 0

        def preview(step: int, array: np.ndarray) -> None:
            if step > 0:  # samplers of second order count what is half of a step below 0
                on_preview(step, _picture(array))

        try:
            arrays = self._model.generate(wanted, on_step, preview if previewing else None)
        except self._extension.Cancelled:
            return None
        if request.init_image is not None and request.mask is not None:
            # The autoencoder changes every pixel a little, also those to be left alone.
            arrays = [_masked(array, request.init_image, request.mask) for array in arrays]
        if request.upscale:
            arrays = [self._model.upscale(array) for array in arrays]
        return [_picture(array) for array in arrays]
