"""Networks: a trunk that is computed once, and a head that is cheap to compute again."""
