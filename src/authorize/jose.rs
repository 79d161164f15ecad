//! Compact JWS and JWK; the only file that names the crypto libraries.
