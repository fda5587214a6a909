"""Fraud and churn models: training, scoring, reasons; only `registry` touches files."""
