//! Model bundles: manifest, digests, network and golden film.
