"""Scale on paper: what it takes to hand models to the devices of an area in time; formulas and sources in docs/capacity.md."""
