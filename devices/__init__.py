"""Which boards exist, and how the runtime gets onto them."""
