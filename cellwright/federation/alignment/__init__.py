"""Which rows and features of the owners belong together: horizontal, vertical and transfer (M.3387 10.3 and 10.4)."""
