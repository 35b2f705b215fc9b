"""A step for each schema. A step is never changed after its release: databases have gone through it."""
