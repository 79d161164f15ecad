//! Claimed context, keys and the moment of acceptance to a verified sender, or the reason why not.
