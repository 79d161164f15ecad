//! OpenTelemetry set-up and one named event per fact.
