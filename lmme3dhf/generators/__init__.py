"""Generators compared by the scores of their videos: who made which video, means, tests, and the
page that shows them.
"""
