"""From pictures of a board to a calibrated rig: python examples/01_calibrate.py [SESSION] [OUTPUT]

SESSION holds board.toml and calibration/<camera>/ or calibration/<camera>.mp4, as the folder that `pose3d demo` leaves.
"""

import sys
from pathlib import Path

from calibration import calibrate_rig, detect_boards, load_boards, save_rig
from calibration.footage import find_sources

session = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
output = Path(sys.argv[2] if len(sys.argv) > 2 else "example")
output.mkdir(parents=True, exist_ok=True)

boards = load_boards(session / "board.toml")
detections = detect_boards(find_sources(session / "calibration"), boards)
calibration = calibrate_rig(detections)

print(calibration.report.text())  # board error, held-out error, squares, and what the footage does not determine
for camera in calibration.rig:
    focal, place = camera.intrinsics.K[0, 0], camera.center.round(1)
    print(f"{camera.name}: focal length {focal:.1f} px, stands at {place} {calibration.rig.unit}")
save_rig(output / "calibration.toml", calibration.rig)
