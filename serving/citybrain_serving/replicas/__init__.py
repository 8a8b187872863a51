"""Several services on one database: one computes, all answer, another computes when the first is gone."""
