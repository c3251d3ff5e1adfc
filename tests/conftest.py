"""What all tests need."""

import signal

# A run in the background inherits that Ctrl-C is ignored, and so would every process that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
