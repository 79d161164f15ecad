//! Headers to claimed context: sizes, names and the shape of each token. Limits: nothing here is believed yet.
