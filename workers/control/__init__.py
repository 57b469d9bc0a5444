"""Acts on runs: start, pause, resume, cancel, retry, adjust; every change of a run goes through `runner`."""
