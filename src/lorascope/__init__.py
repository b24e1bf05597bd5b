"""lorascope: which LoRA rank should I use, and what does it cost me?"""

__version__ = "0.1.0"
