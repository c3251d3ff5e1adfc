"""The benchmarks of bpe/, as `python bpe/run.py bench`.

python bpe/bench.py --data ../shared/data --minbpe ../peers/minbpe
python bpe/bench.py --only encode_chinese --rounds 1 --size 0.5      (tiny)
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv.insert(1, "bench")
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from run import main

    main()
