//! NFDP on LibTorch (feature `torch`): the only room that knows the framework.
