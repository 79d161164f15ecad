//! Cedar policies: loading, scope index, context projection, evaluation.
