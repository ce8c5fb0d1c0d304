"""The suffixes of audio and video files that are found in folders and archives."""

AUDIO_SUFFIXES = (  # of two files of one recording, the first is preferred
    *(".wav", ".flac", ".sph", ".aif", ".aiff", ".au", ".w64", ".caf", ".opus", ".ogg", ".oga", ".mp3", ".m4a", ".aac"),
    *(".wma", ".amr", ".mka", ".webm", ".mp4", ".m4v", ".mkv", ".mov", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"),
)
