// Requests to the server. The key is kept in this tab only.

const KEY = "finetune-api-key";

export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** The JSON of a GET route. */
export async function get(path) {
  let response;
  try {
    response = await fetch(path, { headers: headers() });
  } catch {
    throw new ServerError(0, "The server cannot be reached.");
  }
  const text = await response.text();
  if (!response.ok) throw new ServerError(response.status, message(response.status, text));
  return JSON.parse(text);
}

/**
 * Sends a form and returns the JSON of the answer, with a warning of the server in `warning`.
 * @param onUpload called with the sent fraction, 0 to 1.
 * @param signal ends the request.
 */
export function post(path, form, onUpload, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onUpload?.(event.loaded / event.total);
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) {
        try {
          const warning = request.getResponseHeader("X-Finetune-Warning") ?? "";
          resolve({ ...JSON.parse(request.responseText), warning });
        } catch {
          reject(new ServerError(request.status, "The answer of the server is not JSON."));
        }
      } else {
        const wait = request.getResponseHeader("Retry-After");
        const again = wait ? ` Try again in ${wait} s.` : "";
        reject(new ServerError(request.status, message(request.status, request.responseText) + again));
      }
    };
    request.onerror = () => reject(new ServerError(0, "The server cannot be reached, or closed the connection."));
    request.onabort = () => reject(new DOMException("", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** The message of an error in OpenAI's shape, or the status. */
function message(status, text) {
  try {
    const found = JSON.parse(text).error.message;
    if (found) return `${found[0].toUpperCase()}${found.slice(1)}${/[.!?]$/.test(found) ? "" : "."}`;
  } catch {
    // not an answer of this server, such as the page of a proxy
  }
  return `The server answered with status ${status}.`;
}
