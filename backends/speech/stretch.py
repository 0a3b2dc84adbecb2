"""Change of the tempo of speech without a change of its pitch (WSOLA).

Waveform similarity overlap-add, Verhelst and Roelands 1993: frames are taken from the input at one pace and added to
the output at another. Each is shifted by up to a few milliseconds, to where it continues the frame before it best.
"""

import numpy as np

from backends.speech.families.acoustic_model import Samples

_FRAME_SECONDS = 0.03
_SEARCH_SECONDS = 0.01


def stretch(samples: Samples, tempo: float, sample_rate: int) -> Samples:
    """Return float32 samples that take 1 / `tempo` of the time. The result is clipped to the peak of the input."""
    hop = round(_FRAME_SECONDS * sample_rate / 2)
    frame, search = 2 * hop, round(_SEARCH_SECONDS * sample_rate)
    length = round(len(samples) / tempo)
    if tempo == 1 or len(samples) < frame + search or length < frame:
        return samples
    window = np.hanning(frame + 1)[:-1].astype(np.float32)
    padded = np.concatenate([np.zeros(search, np.float32), samples, np.zeros(frame + search + hop, np.float32)])
    output = np.zeros(length + frame, np.float32)
    output[:hop] = samples[:hop] * window[hop:]  # the first half frame has nothing to overlap with
    position = search  # index in `padded` of the frame that was added last
    for start in range(0, length, hop):
        if start:
            natural = padded[position + hop : position + hop + frame]  # what would follow without a change
            target = min(round(start * tempo), len(samples) - 1)
            region = padded[target : target + frame + 2 * search]
            position = target + int(np.argmax(np.correlate(region, natural, "valid")))
        output[start : start + frame] += padded[position : position + frame] * window
    peak = np.abs(samples).max()
    return np.clip(output[:length], -peak, peak)
