// Records the microphone. The recording is sent as the browser made it.

const SUFFIXES = { "audio/webm": ".webm", "audio/ogg": ".ogg", "audio/mp4": ".m4a", "audio/wav": ".wav" };

/** Why this browser cannot record here; "" if it can. */
export function problem() {
  if (!isSecureContext) return "Recording needs https or the address localhost.";
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) return "This browser cannot record.";
  return "";
}

/**
 * Starts to record.
 * @param onLevel called with the level, 0 to 1, and the seconds so far.
 * @returns a function that stops, and gives the recording as a File.
 */
export async function start(onLevel) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const parts = [], begun = performance.now();
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.start(1000);
  const context = new AudioContext(), analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
    onLevel(Math.min(1, Math.sqrt(power) * 4), (performance.now() - begun) / 1000);
  }, 100);
  return () =>
    new Promise((resolve) => {
      recorder.onstop = () => {
        clearInterval(timer);
        stream.getTracks().forEach((track) => track.stop());
        context.close();
        const type = recorder.mimeType.split(";")[0];
        resolve(new File(parts, `recording${SUFFIXES[type] ?? ""}`, { type: recorder.mimeType }));
      };
      recorder.stop();
    });
}
