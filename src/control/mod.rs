//! What is watched: trust, policies, entities, each as a versioned snapshot.
