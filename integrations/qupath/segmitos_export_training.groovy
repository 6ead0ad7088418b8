/*
 * Export the open image's clicks and reviewed regions for training with SegMitos.
 *
 * Points, annotations and detections of the classes "Mitotic figure", "Hard negative" and "Unsure"
 * become clicks; annotations of class "Region*" (or "Reviewed") are the areas in which every mitosis
 * is marked. The file lies beside the image, or in FOLDER, under the image's name: train with
 *
 *     segmitos train qupath:FOLDER -o runs/mine
 */
def FOLDER = null                              // null: the folder of the image

def CLASSES = ["Mitotic figure", "Hard negative", "Unsure", "Region*", "Reviewed"].collect { getPathClass(it) }
def uris = getCurrentServer().getURIs()
if (uris.isEmpty() || uris[0].getScheme() != "file") {
    print "The image is not a file on this machine: " + uris
    return
}
def image = new File(uris[0])
def objects = getAllObjects(false).findAll { it.getPathClass() in CLASSES }
if (objects.isEmpty()) {
    print "nothing to export: no object has one of the classes " + CLASSES
    return
}
def folder = FOLDER == null ? image.getParentFile() : new File(FOLDER)
def file = new File(folder, image.getName() + ".geojson")
exportObjectsToGeoJson(objects, file.getAbsolutePath(), "FEATURE_COLLECTION")
CLASSES.each { kind -> print kind.toString() + ": " + objects.count { it.getPathClass() == kind } }
print "written: " + file.getAbsolutePath()
