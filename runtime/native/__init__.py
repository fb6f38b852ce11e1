"""Native code at run time: the C compiler, the cache of what it built, the thread pool, facts about the machine."""
