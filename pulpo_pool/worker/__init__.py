"""One child process: reserve, handle, settle."""
