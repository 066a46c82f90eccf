"""M.3387, Appendix I, as a program: vehicles, roadside units and a cloud learn to foresee road anomalies, and no drive leaves its vehicle.

    python examples/road_anomalies.py

It prints the six steps of Appendix I.3 with their figures and ends with 0 only if every step's condition held. Data are generated
from a seed, speeds and links are simulated, all else is what a federation runs on: the management API over TLS on loopback, signed
messages, sums sealed by secure aggregation, the audit log. docs/federation-story.md tells what happens, and where it departs from the
appendix. The story itself lies in road_anomalies/.
"""

import sys

from road_anomalies.story import main

if __name__ == "__main__":
    sys.exit(main())
