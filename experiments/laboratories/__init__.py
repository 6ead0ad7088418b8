"""The built-in model: proposals, verifiers and thresholds by laboratory-wise cross-validation."""
