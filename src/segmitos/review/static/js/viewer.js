// The slide in OpenSeadragon: tiles, scale, magnification, and places in level-0 pixels.

import { tileAddress } from "./api.js";
import { h } from "./dom.js";

const LIBRARY = "/vendor/openseadragon.min.js";
const BARS_UM = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
const FULL_UM = 10; // um per screen pixel at 1x: 40x shows 0.25 um in each

let library = null;
function loadLibrary() {
  library ??= new Promise((resolve, reject) => {
    // OpenSeadragon adds an inline style unless it finds this; the content policy allows none.
    const found = document.createElementNS("urn:segmitos", "style");
    found.setAttribute("data-openseadragon-mobile-css", "");
    document.head.append(found);
    const script = h("script", { src: LIBRARY, onload: () => resolve(window.OpenSeadragon), onerror: () => reject(new Error("the slide viewer could not be loaded")) });
    document.head.append(script);
  });
  return library;
}

export class SlideViewer {
  static async open(element, about) {
    const OpenSeadragon = await loadLibrary();
    const viewer = new SlideViewer();
    viewer.about = about;
    viewer.lib = OpenSeadragon;
    const last = about.levels - 1;
    const source = new OpenSeadragon.TileSource({
      width: about.width_px, height: about.height_px, tileSize: about.tile_px, tileOverlap: 0, minLevel: 0, maxLevel: last,
      getTileUrl: (level, x, y) => tileAddress(about.name, last - level, x, y),
    });
    viewer.osd = new OpenSeadragon.Viewer({
      element, tileSources: source, drawer: "canvas", showNavigationControl: false, showNavigator: true,
      navigatorPosition: "TOP_RIGHT", navigatorSizeRatio: 0.15, navigatorAutoFade: false, animationTime: 0.25, springStiffness: 12, visibilityRatio: 0.3,
      maxZoomPixelRatio: 8, minZoomImageRatio: 0.6, crossOriginPolicy: false, imageSmoothingEnabled: true, preserveImageSizeOnResize: true,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false }, gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: false, flickEnabled: true },
    });
    // Keys are the page's own.
    viewer.osd.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; });
    await new Promise((resolve, reject) => {
      viewer.osd.addOnceHandler("open", resolve);
      viewer.osd.addOnceHandler("open-failed", () => reject(new Error("the slide cannot be shown")));
    });
    return viewer;
  }

  // The room that there is now; the viewer itself notices a change only later.
  measure() {
    const { clientWidth, clientHeight } = this.osd.element;
    this.osd.viewport.resize(new this.lib.Point(clientWidth, clientHeight), true);
  }

  home() {
    this.osd.viewport.goHome(true);
  }

  showNavigator(shown) {
    this.osd.navigator.element.hidden = !shown;
  }

  // How level-0 pixels lie on the screen: CSS px = (place + 0.5) * scale + offset.
  view() {
    if (!this.osd?.viewport || !this.osd.world.getItemCount()) return null;
    const size = this.osd.viewport.getContainerSize();
    const origin = this.osd.viewport.imageToViewerElementCoordinates(new this.lib.Point(0, 0));
    const far = this.osd.viewport.imageToViewerElementCoordinates(new this.lib.Point(this.about.width_px, 0));
    return { scale: (far.x - origin.x) / this.about.width_px, x: origin.x, y: origin.y, width: size.x, height: size.y };
  }

  // Level-0 pixels, pixel centers at integers, of a place on the screen.
  place(point) {
    const image = this.osd.viewport.viewerElementToImageCoordinates(point);
    return [image.x - 0.5, image.y - 0.5];
  }

  get umPerPx() {
    const view = this.view();
    return view ? this.about.mpp / view.scale : null;
  }

  get magnification() {
    return FULL_UM / this.umPerPx;
  }

  magnify(times, immediately = false) {
    const zoom = this.osd.viewport.imageToViewportZoom(this.about.mpp * times / FULL_UM);
    this.osd.viewport.zoomTo(zoom, null, immediately).applyConstraints(immediately);
  }

  zoomBy(factor) {
    this.osd.viewport.zoomBy(factor).applyConstraints();
  }

  goTo(x, y, times = null, immediately = false) {
    if (times !== null) this.magnify(times, immediately);
    this.osd.viewport.panTo(this.osd.viewport.imageToViewportCoordinates(x + 0.5, y + 0.5), immediately);
  }

  fit([x0, y0, x1, y1], immediately = false) {
    this.osd.viewport.fitBounds(this.osd.viewport.imageToViewportRectangle(x0, y0, x1 - x0, y1 - y0), immediately);
  }

  scaleBar() {
    const um = this.umPerPx;
    const length = BARS_UM.find((one) => one / um >= 60) ?? BARS_UM.at(-1);
    return { text: length >= 1000 ? `${length / 1000} mm` : `${length} µm`, width: length / um };
  }

  close() {
    this.osd?.destroy();
    this.osd = null;
  }
}
