"""HTTP parts that all dialects share: routes, request bodies, limits, forms, delivery of responses, disconnects."""
