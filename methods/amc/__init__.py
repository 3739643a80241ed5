"""AMC (Yang et al., CVPR 2023): ALBEF fine-tuned so that its Grad-CAM heat lies inside the annotated box."""

from vgbench.methods.amc.method import AMC
from vgbench.methods.amc.schedule import SteppedWarmupCosine

__all__ = ["AMC", "SteppedWarmupCosine"]
