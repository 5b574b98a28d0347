from .levels import Level as Level
from .levels import PixelSize as PixelSize
from .levels import check_mpp as check_mpp
from .opening import open_slide as open_slide
from .resample import Raster as Raster
from .resample import Resampling as Resampling
from .resample import choose_resampling as choose_resampling
from .resample import open_raster as open_raster
from .resample import read_mirrored as read_mirrored
from .slide import Reader as Reader
from .slide import Slide as Slide
from .tissue.detection import find_tissue as find_tissue
from .tissue.mask import TissueMask as TissueMask
from .tissue.mask import mask_in_box as mask_in_box
from .tissue.mask import mask_touches as mask_touches
from .tissue.mask_files import load_mask as load_mask

__all__ = [
    "Level",
    "PixelSize",
    "Raster",
    "Reader",
    "Resampling",
    "Slide",
    "TissueMask",
    "check_mpp",
    "choose_resampling",
    "find_tissue",
    "load_mask",
    "mask_in_box",
    "mask_touches",
    "open_raster",
    "open_slide",
    "read_mirrored",
]
