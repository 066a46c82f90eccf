"""3GPP TR 22.874, 6.2, as a program: an operator keeps company A's guide models near the tourists and hands them over within a second.

    python examples/tourist_guide.py                        # 6.4 MB a model
    python examples/tourist_guide.py --bytes 536870912      # the use case's 536 MB

Hub, network and two edges are processes on loopback; nothing is mocked. It prints nine steps and a table, and ends with 0 only if every
promise of the story held. docs/mmaas-story.md tells what happens, and where it departs from the use case. The story itself lies in
tourist_guide/.
"""

import sys

from tourist_guide.story import main

if __name__ == "__main__":
    sys.exit(main())
