"""The runtimes: the same apps in this process, or on a SuperLink and SuperNodes. The only place that knows Flower."""
