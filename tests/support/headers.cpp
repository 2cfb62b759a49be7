// Nothing of its own: the headers that the tests share, compiled once.
