"""One module a layout: how a published table becomes rows of times, places and raw values."""
