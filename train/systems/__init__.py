"""The systems that Cai et al. 2020 compare MMTL with (Table 2), re-implemented from their descriptions.

Each runs on this project's front-end and segments. None is its authors' code.
"""
