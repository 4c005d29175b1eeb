// The ways to add images: chosen, taken with the camera, pasted, dropped.

/** Calls `use` with the files of each. */
export function takeFiles(use) {
  const take = (event) => {
    const files = (event.clipboardData ?? event.dataTransfer).files;
    if (files.length === 0) return;
    event.preventDefault();
    use(files);
  };
  for (const input of document.querySelectorAll("#files, #camera")) {
    input.addEventListener("change", () => {
      use(input.files);
      input.value = "";
    });
  }
  document.addEventListener("paste", take);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    take(event);
  });
}
