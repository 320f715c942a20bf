"""Many models live at once: loaded, swapped under load, surviving faults."""
