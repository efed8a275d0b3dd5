"""The model side: bars in, one signal per accepted bar out, whatever fails."""
