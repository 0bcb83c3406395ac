"""A processor that reads the paths of videos itself, for a trainer that hands it paths (Unsloth's own).

patch_video_processor(processor, "sample_data/videos")
"""

import os

from stlite.train.chat import unwrap_clips
from stlite.train.generation import clip_metadata, read


def patch_video_processor(processor, videos: str | os.PathLike | None = None) -> None:
    """Make a processor read the paths of videos itself, under the root `videos`, through `read_clip`.

    Only for a trainer that hands paths to the processor (Unsloth's own), and renders chats with it.
    Both become subclasses of the same name, so that they still save and reload.
    """
    from transformers.video_utils import VideoMetadata

    class Patched(type(processor.video_processor)):
        """A video processor whose videos are read by `read_clip`."""

        def fetch_videos(self, paths, sample_indices_fn=None):
            """Return frames and metadata of a path, or lists of both for a list of paths."""
            if isinstance(paths, (list, tuple)):
                return list(zip(*[self.fetch_videos(path) for path in paths]))
            clip = read(processor, paths, videos)
            return clip.frames, VideoMetadata(**clip_metadata(clip))

        def fetch_images(self, urls):
            """Refuse a list of images: it would go round the reader."""
            raise ValueError(
                f"video: expected the path of a video file, found a list of images: {str(urls)[:200]}"
            )

    class Unwrapping(type(processor)):
        """A processor whose prompts write the times of frames as `timestamps` says."""

        def __call__(self, images=None, text=None, videos=None, **kwargs):
            """Process prompts, one or a list of them."""
            if isinstance(text, str):
                text = [text]
            texts = [unwrap_clips(self, prompt) for prompt in text]
            return super().__call__(images=images, text=texts, videos=videos, **kwargs)

    _take_class(processor.video_processor, Patched)
    _take_class(processor, Unwrapping)
    processor.video_processor.do_resize = False
    processor.video_processor.do_sample_frames = False


def _take_class(instance, subclass: type) -> None:
    """Make an object one of a subclass that goes by its own class's name."""
    plain = type(instance)
    subclass.__name__ = plain.__name__
    subclass.__module__ = plain.__module__
    instance.__class__ = subclass
