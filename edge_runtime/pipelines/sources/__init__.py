"""Where frames come from: files and folders as they are, cameras and video through OpenCV."""
