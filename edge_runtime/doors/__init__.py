"""Adapters that let requests in: each speaks one protocol over the models that serving keeps live."""
