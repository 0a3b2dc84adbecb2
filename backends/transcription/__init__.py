"""The Triton backend `transcription`: speech to text with Whisper.

Triton loads `model.py`, which reads tensors (`tensors.py`) and passes each request to `TranscriptionFrontend`
(`request_frontend.py`). A request is cut into windows of speech (`voice_activity.py`, `windows.py`). One thread
(`scheduler.py`) decodes the windows of all requests together (`batch.py`): the encoder reads their spectrograms
(`log_mel.py`), and windows join and leave between two steps of the decoder. The tokens of a window become segments
(`segments.py`) and words with times (`alignment.py`, `words.py`).
"""
