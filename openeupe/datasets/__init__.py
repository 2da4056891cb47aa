"""Labelled data sets for heads and benchmarks: classification, dense, keypoints, questions."""
