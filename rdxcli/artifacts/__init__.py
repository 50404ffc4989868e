"""The outputs directory: layout, manifests, atomic writes, reuse, locks."""
