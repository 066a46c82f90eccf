"""Tables over many runs: a recipe names data sets, models and seeds; the table holds every KPI of every model."""
